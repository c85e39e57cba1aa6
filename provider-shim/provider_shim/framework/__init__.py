"""A small provider framework: types, schemas, plans and diagnostics. It knows neither protobuf nor HTTP."""
