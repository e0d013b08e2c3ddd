"""The synchronous core: one user unit in, one agent unit out.

Read streamer.py first; it calls the thinker and the performer, which call the backbone over a cache.
"""

from wanedge.streaming.streamer import Streamer

__all__ = ["Streamer"]
