"""What threads wait on."""
