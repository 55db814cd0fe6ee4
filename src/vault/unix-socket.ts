const SCHEME = 'unix://'
/** unix(7) allows 107. */
const MAX_PATH_BYTES = 107

/** What is wrong with `unix:///path/of/a/socket`; undefined for any other address, and where nothing is. */
export function socketProblem(address: string): string | undefined {
  if (!address.startsWith(SCHEME)) return undefined
  const path = address.slice(SCHEME.length)
  if (!path.startsWith('/') || path.endsWith('/')) return `"${address}" must be unix:// and an absolute path`
  return Buffer.byteLength(path) > MAX_PATH_BYTES ? `"${address}" is longer than a socket's path may be` : undefined
}

export const isSocket = (address: string): boolean => address.startsWith(SCHEME)

/**
 * Where a request goes, in words of HTTP. Each socket among the addresses is a host of its own by name, `unix-0` where it is the first of
 * them; no address can have such a name, since http is for loopback alone.
 */
export function targetOf(
  url: string,
  addresses: readonly string[],
): { readonly origin: string; readonly path: string } {
  const index = addresses.findIndex((address) => isSocket(address) && url.startsWith(`${address}/`))
  const address = addresses[index]
  if (address !== undefined) return { origin: `http://unix-${index}`, path: url.slice(address.length) }
  const { origin, pathname, search } = new URL(url)
  return { origin, path: `${pathname}${search}` }
}

/** The path of the socket behind such a host. */
export function socketPathOf(hostname: string, addresses: readonly string[]): string | undefined {
  const address = addresses[Number(/^unix-(\d+)$/.exec(hostname)?.[1] ?? -1)]
  return address !== undefined && isSocket(address) ? address.slice(SCHEME.length) : undefined
}
