"""What all apps and all deciders of a region share: services, prices, tenants and their use."""
