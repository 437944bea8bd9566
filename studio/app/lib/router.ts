// Addresses of the page: #/screen/part/part?name=value. Reloading and the browser's back button keep the
// place.

export const SCREENS = ["chat", "complete", "look", "tune", "models", "course"] as const;
export type Screen = (typeof SCREENS)[number];

export interface Place {
  screen: Screen;
  parts: string[];
  query: Record<string, string>;
}

export function parse(hash: string): Place {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [first = "", ...parts] = path.split("/").filter(Boolean).map(decoded);
  const screen = SCREENS.find((one) => one === first) ?? "chat";
  return { screen, parts, query: Object.fromEntries(new URLSearchParams(search)) };
}

export function format(screen: Screen, parts: string[] = [], query: Record<string, string> = {}): string {
  const search = new URLSearchParams(query).toString();
  return "#/" + [screen, ...parts].map(encodeURIComponent).join("/") + (search ? "?" + search : "");
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
