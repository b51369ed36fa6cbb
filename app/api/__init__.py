"""The public API: GraphQL over HTTP, WebSocket and SSE, provider notifications, health."""
