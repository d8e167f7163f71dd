"""masklet: videos to masklets."""
