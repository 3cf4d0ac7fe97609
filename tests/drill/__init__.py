"""The drill: processes killed, disks filled, files damaged, and what the package makes of it. `make drill` prints its table."""
