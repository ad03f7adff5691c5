//! REST and WebSocket: parse, authenticate, call one service function, render.
