"""Jobs carried by fleets that are there already: real brokers, real workers, real signals."""
