"""Where arrays live, and what this machine has: processor, GPUs, memory."""
