"""Shell completion: `circuits completion bash` prints the script, `circuits --complete LINE` answers it."""
