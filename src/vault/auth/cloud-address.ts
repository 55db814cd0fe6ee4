import * as z from 'zod'
import { isLoopback } from '../loopback.ts'

const Address = z
  .url({ protocol: /^https?$/, error: 'must be an address such as http://169.254.169.254', abort: true })
  .refine((url) => new URL(url).username === '' && new URL(url).password === '', {
    error: 'must not hold a user or password',
  })
  .refine((url) => new URL(url).pathname === '/' && new URL(url).search === '' && new URL(url).hash === '', {
    error: 'must be the address alone, without a path, a query or a fragment',
  })
  .overwrite((url) => url.replace(/\/+$/, ''))

/** Config: the metadata service of a cloud, which speaks plain http on an address that leads no further than the host. */
export const MetadataAddress = Address

/** Config: an API of a cloud. */
export const ApiAddress = Address.refine(
  (url) => new URL(url).protocol === 'https:' || isLoopback(new URL(url).hostname),
  { error: 'must use https; http is accepted on a loopback address only' },
)
