"""Load for an endpoint that speaks TGI's HTTP API: open loop over steps, closed loop for calibration, accounting."""
