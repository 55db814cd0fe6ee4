import * as z from 'zod'
import { isIPv6 } from '../core/ip.ts'

export interface Address {
  /** Name or IP address, without brackets. */
  readonly host: string
  readonly port: number
}

/** `host:port`, `[::1]:443`; with a default port also `host`, `::1` and `[::1]`. Throws a RangeError that says what is wrong. */
export function parseAddress(text: string, defaultPort?: number): Address {
  if (isIPv6(text) && defaultPort !== undefined) return { host: text, port: defaultPort }
  const [, bracketed, name, digits] = /^(?:\[([^\]]*)\]|([^\s:/[\]@]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = bracketed === undefined ? name : isIPv6(bracketed) ? bracketed : undefined
  const port = digits === undefined ? defaultPort : Number(digits)
  if (host === undefined || port === undefined || port < 1 || port > 65_535)
    throw new RangeError(`"${text}" is no address; write host:port, such as 127.0.0.1:443 or [::1]:443`)
  return { host, port }
}

export const formatAddress = ({ host, port }: Address): string =>
  isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`

/** Config: `host:port`. */
export const Address = z
  .string()
  .meta({ description: 'Where to connect: host:port, [::1]:443', examples: ['127.0.0.1:443'] })
  .transform((text, context): Address => {
    try {
      return parseAddress(text)
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) })
      return z.NEVER
    }
  })
