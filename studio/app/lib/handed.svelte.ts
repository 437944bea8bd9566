// A point of a conversation that is looked at on another screen.

export interface Point {
  ids: number[];
  texts: string[];
  model: string | null;
  adapter: string | null;
}

export const handed = $state<{ point: Point | null }>({ point: null });
