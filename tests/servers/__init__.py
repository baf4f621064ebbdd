"""Real servers, real signals: what an application sees when its server is told to stop."""
