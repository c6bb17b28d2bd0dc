"""What several test folders share: starting gateways, sending requests, making models. No tests live here."""
