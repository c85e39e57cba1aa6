"""A throwaway cluster on this machine: `flintctl dev`."""
