"""The Slack front: `/train` and job-finished notices. It will speak to the service through `ainfinity.client` alone."""
