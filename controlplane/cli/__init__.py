"""flintctl: the command line of the control plane. It speaks the HTTP API like any other client and holds no policy."""
