"""Terraform's plugin wire: messages, handshake and the 28 calls of `tfplugin6.Provider`."""
