"""The frontends other than Open WebUI: chats over SSE, their conversations, pages, the document."""
