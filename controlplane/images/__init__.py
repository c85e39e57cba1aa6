"""The host's images: named, checked sets of files that hold kernels, initrds and root disks.

`store` keeps them, `oci` and `demo` fill it.
"""
