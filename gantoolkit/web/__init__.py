"""What every page of ours is served with: the guard before it, and the socket that it is reached through."""
