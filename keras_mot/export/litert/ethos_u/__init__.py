"""Files for Arm's Ethos-U NPUs, compiled by Arm's Vela."""
