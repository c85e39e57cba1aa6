"""What each resource and data source means. To change what a user can write, open the module of that type."""
