"""Floor 5: the agent of one machine: stages weights, installs runtimes, runs replicas, reports."""
