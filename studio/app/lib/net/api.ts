// Requests to the server that the page came from. The browser's cookie opens its routes; nothing goes
// elsewhere.

/** An answer that says what went wrong, in the shape that every route of the server has. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code: string | null = null,
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

export type Fetch = (path: string, options?: RequestInit) => Promise<Response>;

/** Send a request and return the response; raises ApiError for a status of 400 and above. */
export async function send(
  path: string,
  options: RequestInit = {},
  fetcher: Fetch = fetch,
): Promise<Response> {
  const response = await fetcher(path, { credentials: "same-origin", cache: "no-store", ...options });
  if (response.ok) return response;
  const body: unknown = await response.json().catch(() => null);
  const error = (body as { error?: { message?: string; code?: string | null } } | null)?.error;
  const after = Number.parseFloat(response.headers.get("retry-after") ?? "");
  const message = error?.message ?? `${response.status} ${response.statusText}`;
  throw new ApiError(response.status, message, error?.code ?? null, Number.isNaN(after) ? null : after);
}

/** Send JSON (or nothing) and return the JSON of the answer. */
export async function call<T>(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<T> {
  const options: RequestInit = { method };
  if (signal) options.signal = signal;
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const response = await send(path, options);
  const text = await response.text();
  return (text ? JSON.parse(text) : null) as T;
}

export const get = <T>(path: string, signal?: AbortSignal): Promise<T> =>
  call<T>("GET", path, undefined, signal);
export const post = <T>(path: string, body: unknown = {}, signal?: AbortSignal): Promise<T> =>
  call<T>("POST", path, body, signal);
export const patch = <T>(path: string, body: unknown): Promise<T> => call<T>("PATCH", path, body);
export const remove = <T>(path: string): Promise<T> => call<T>("DELETE", path);

/** Address of a studio route. Names are escaped. */
export function studio(...parts: string[]): string {
  return "/studio/api/" + parts.map(encodeURIComponent).join("/");
}
