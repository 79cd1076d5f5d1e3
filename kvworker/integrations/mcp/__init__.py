"""The tools as an MCP server, over stdio or streamable HTTP. It needs the extra ``mcp``."""
