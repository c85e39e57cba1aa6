"""Every decoder of bytes from outside, fed with bytes that almost are what it expects."""
