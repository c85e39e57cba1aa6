"""A small provider framework: types, schemas, plans and diagnostics. It knows nothing of protobuf and nothing of HTTP."""
