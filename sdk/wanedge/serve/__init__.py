"""`wanedge serve`: live sessions for browsers and for clients of OpenAI's Live API.

    browser, openai, Pipecat, LiveKit --WebSocket--> Connection -> Conversation -> Session

`server.py` holds the sessions, `pages.py` plain HTTP and who may come in, `events.py` the protocol, `operations.py`
what an operator sees, `web/` the kiosk page. Needs the extra `serve`. See docs/serve.md.
"""

from wanedge.serve.connection import Limits
from wanedge.serve.server import LiveServer, ServerOptions

__all__ = ["Limits", "LiveServer", "ServerOptions"]
