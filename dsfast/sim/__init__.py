"""The cluster in one thread on a virtual clock: production engines and codec, everything else pretended and broken."""
