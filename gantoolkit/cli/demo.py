def demo() -> int:
    """X"""
    return 0
