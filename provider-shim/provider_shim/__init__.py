"""The Terraform provider for the Flintlock control plane.

An HTTP client that speaks Terraform's dialect and holds no policy: `protocol` is the plugin wire, `framework` gives a
resource its types, plan and diagnostics, `resources` says what each resource means, `client` talks to the API.
"""

__version__ = "0.1.0"

PROVIDER_HOST = "registry.terraform.io"
PROVIDER_NAMESPACE = "microscaler"
PROVIDER_NAME = "flintlock"
PROVIDER_SOURCE = f"{PROVIDER_NAMESPACE}/{PROVIDER_NAME}"
