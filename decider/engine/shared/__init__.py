"""What all apps and all deciders of a region share: services, their prices, tenants and their use."""
