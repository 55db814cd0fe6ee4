import * as z from 'zod'

const isPort = (address: string) => Number(address.slice(address.lastIndexOf(':') + 1)) <= 65_535

/** Where a server listens. */
export const ListenAddress = z
  .string()
  .regex(/^(?:\[[0-9a-f:.]+\]|[^:[\]]+):\d{1,5}$/i, {
    error: "must be host:port, such as '127.0.0.1:9443' or '[::]:9443'",
    abort: true,
  })
  .refine(isPort, 'must have a port of at most 65535')
