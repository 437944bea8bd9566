// The list of conversations that the server keeps.
import { app } from "../app.svelte";
import { get, patch, post, remove, studio } from "../net/api";
import { fromKept, type KeptTurn } from "./kept";
import type { Conversation, ConversationFacts, Mode } from "../types";

type Kept = Omit<Conversation, "nodes"> & { nodes: KeptTurn[] };

class Conversations {
  list = $state.raw<ConversationFacts[]>([]);
  loaded = $state(false);
  search = $state("");

  async load(): Promise<void> {
    const query = this.search ? `?search=${encodeURIComponent(this.search)}` : "";
    await app.tried(async () => {
      const answer = await get<{ conversations: ConversationFacts[] }>(studio("conversations") + query);
      this.list = answer.conversations;
      this.loaded = true;
    });
  }

  of(mode: Mode): ConversationFacts[] {
    return this.list.filter((one) => one.mode === mode);
  }

  async open(id: string): Promise<Conversation> {
    const talk = await get<Kept>(studio("conversations", id));
    return { ...talk, nodes: talk.nodes.map(fromKept) };
  }

  /** Make a conversation. One that is there under its id stays as it is. */
  async create(facts: Partial<Conversation> & { id: string }): Promise<void> {
    await post(studio("conversations"), facts);
    void this.load();
  }

  async change(id: string, facts: Partial<Conversation>): Promise<void> {
    await patch(studio("conversations", id), facts);
    await this.load();
  }

  async remove(id: string, said: string): Promise<void> {
    await remove(studio("conversations", id));
    await this.load();
    app.offer(said, async () => {
      await post(studio("conversations", id, "restore"));
      await this.load();
    });
  }

  async bring(text: string): Promise<ConversationFacts> {
    const made = await post<ConversationFacts>(studio("import"), JSON.parse(text));
    await this.load();
    return made;
  }
}

export const conversations = new Conversations();
