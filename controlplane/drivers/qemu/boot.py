"""The kernel and the initrd of a spec, as files of this host."""

from __future__ import annotations

from pathlib import Path

from controlplane.model.spec import MicroVMSpec
from controlplane.ports import DriverError, ImageStore


def boot_files(spec: MicroVMSpec, images: ImageStore) -> tuple[Path, Path | None]:
    """(kernel, initrd). Raises DriverError with the pointer to the image or the file name that is not there."""
    kernel = _resolve(images, spec.kernel.image, spec.kernel.filename, "kernel")
    initrd = _resolve(images, spec.initrd.image, spec.initrd.filename, "initrd") if spec.initrd else None
    return kernel, initrd


def _resolve(images: ImageStore, image: str, filename: str | None, role: str) -> Path:
    try:
        return images.resolve(image, filename, role=role)
    except DriverError as error:
        field = "filename" if error.code == "ImageFileNotFound" else "image"
        raise DriverError(
            error.code, error.message, pointer=f"/spec/{role}/{field}", retryable=error.retryable
        ) from error
