// Both languages have the same texts, and no component has one of its own.
import { parse } from "svelte/compiler";
import { expect, test } from "vitest";
import en from "../../app/words/en.json";
import es from "../../app/words/es.json";

const COMPONENTS = import.meta.glob<string>("../../app/**/*.svelte", {
  query: "?raw",
  import: "default",
  eager: true,
});
const SCRIPTS = import.meta.glob<string>("../../app/**/*.ts", {
  query: "?raw",
  import: "default",
  eager: true,
});
const SPOKEN = new Set(["aria-label", "aria-description", "title", "placeholder", "alt", "label"]);
const holes = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();

test("English and Spanish have the same keys and the same places for values", () => {
  expect(Object.keys(es)).toEqual(Object.keys(en));
  for (const [key, text] of Object.entries(en))
    expect(holes(es[key as keyof typeof es]), key).toEqual(holes(text));
  expect(Object.values(es).filter((text) => !text)).toEqual([]);
});

test.each(Object.entries(COMPONENTS))(
  "%s has no text, style attribute or raw markup of its own",
  (_, source) => {
    const found: string[] = [];
    walk(parse(source, { modern: true }).fragment, (node) => {
      if (node.type === "HtmlTag") found.push("{@html}");
      if (node.type === "Text" && /\p{L}{2}/u.test(node.data)) found.push(node.data.trim());
      if (node.type === "Attribute" && node.name === "style") found.push("style=");
      if (node.type === "Attribute" && SPOKEN.has(node.name) && Array.isArray(node.value)) {
        for (const part of node.value)
          if (part.type === "Text" && /\p{L}/u.test(part.data)) found.push(part.data);
      }
    });
    expect(found).toEqual([]);
  },
);

test("every text that is used is there, and every one that is there is used", () => {
  const code = [...Object.values(COMPONENTS), ...Object.values(SCRIPTS)].join("\n");
  const made = [...code.matchAll(/`((?:[\w.]|\$\{[^}]*\})*[\w.]+(?:[\w.]|\$\{[^}]*\})*)`/g)].map(
    ([, key = ""]) => new RegExp(`^${key.replaceAll(".", "\\.").replace(/\$\{[^}]*\}/g, "[\\w.]+")}$`),
  );
  const unused = Object.keys(en).filter(
    (key) =>
      !code.includes(`"${key}"`) && !code.includes(`'${key}'`) && !made.some((pattern) => pattern.test(key)),
  );
  expect(unused).toEqual([]);
});

// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Node = any;

function walk(node: Node, visit: (node: Node) => void): void {
  if (!node || typeof node !== "object") return;
  if (Array.isArray(node)) return node.forEach((one) => walk(one, visit));
  if (typeof node.type === "string") visit(node);
  // Texts of attributes are looked at above.
  if (node.type === "Attribute" || node.type === "StyleDirective") return;
  for (const [name, value] of Object.entries(node))
    if (name !== "expression" && name !== "metadata") walk(value, visit);
}
