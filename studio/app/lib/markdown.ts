// The one place where text becomes markup: Markdown, then everything that could act is taken out.
import DOMPurify from "dompurify";
import { Marked } from "marked";

const SIGNS: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const marked = new Marked({
  gfm: true,
  async: false,
  renderer: {
    html: ({ text }) => text.replace(/[&<>"]/g, (sign) => SIGNS[sign] ?? sign), // markup is shown, not used
    image: ({ text }) => text.replace(/[&<>"]/g, (sign) => SIGNS[sign] ?? sign),
  },
});

const TAGS = [
  "p",
  "br",
  "strong",
  "em",
  "del",
  "code",
  "pre",
  "ul",
  "ol",
  "li",
  "blockquote",
  "hr",
  "span",
  "h1",
  "h2",
  "h3",
  "h4",
  "h5",
  "h6",
  "table",
  "thead",
  "tbody",
  "tr",
  "th",
  "td",
  "a",
  "sub",
  "sup",
];
const ATTRIBUTES = ["href", "start", "align", "colspan", "rowspan"];

/**
 * Show Markdown: its HTML as text, of images the description. With `breaks` a line break in it begins a line,
 * as models mean it.
 */
export function show(element: HTMLElement, text: string, breaks = true): void {
  const markup = marked.parse(text, { breaks }) as string;
  const clean = DOMPurify.sanitize(markup, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOWED_URI_REGEXP: /^(?:https?:|#\/)/i,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of clean.querySelectorAll("a[href^='http']")) {
    link.setAttribute("rel", "noopener noreferrer nofollow");
    link.setAttribute("target", "_blank");
  }
  element.replaceChildren(clean);
}
