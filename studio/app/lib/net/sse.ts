// Reads server-sent events from the body of a response, as WHATWG's "event stream interpretation" has them.

export interface ServerEvent {
  event: string; // "message" unless the server names it
  data: string;
  id: string;
}

/** Yield the events of a stream. Comments are skipped, and an event that the end cuts is left out. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const parser = new Parser();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    await reader.cancel().catch(() => undefined); // the connection may be gone already
  }
}

/** Takes pieces of text, cut anywhere, and gives back the events that are complete. */
export class Parser {
  private rest = "";
  private data: string[] = [];
  private event = "";
  private id = "";

  feed(piece: string): ServerEvent[] {
    this.rest += piece;
    const complete: ServerEvent[] = [];
    for (let line = this.line(); line !== null; line = this.line()) {
      const event = this.take(line);
      if (event) complete.push(event);
    }
    return complete;
  }

  private line(): string | null {
    const end = this.rest.search(/[\r\n]/);
    if (end < 0) return null;
    if (this.rest[end] === "\r" && end + 1 === this.rest.length) return null; // "\n" may follow
    const line = this.rest.slice(0, end);
    this.rest = this.rest.slice(end + (this.rest.startsWith("\r\n", end) ? 2 : 1));
    return line;
  }

  private take(line: string): ServerEvent | null {
    if (line === "") return this.dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    else if (field === "event") this.event = value;
    else if (field === "id") this.id = value;
    return null;
  }

  private dispatch(): ServerEvent | null {
    const event = { event: this.event || "message", data: this.data.join("\n"), id: this.id };
    const empty = this.data.length === 0;
    this.data = [];
    this.event = "";
    return empty ? null : event;
  }
}
