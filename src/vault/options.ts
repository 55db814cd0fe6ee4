import { X509Certificate } from 'node:crypto'
import * as z from 'zod'
import { Timeout } from '../core/units.ts'
import { AbsolutePath } from './auth/credential.ts'
import { AuthOptions, kindsOf } from './auth/index.ts'
import { isLoopback } from './loopback.ts'
import { TokenSink } from './sink.ts'
import { isSocket, socketProblem } from './unix-socket.ts'

/** Config: where a node of Vault is. A trailing slash is dropped; a path before `/v1`, as a gateway may want it, is kept. */
const Address = z
  .string()
  .superRefine((text, context) => {
    const problem = problemOf(text)
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
  })
  .overwrite((text) => text.replace(/\/+$/, ''))

/** Config: where Vault is; a list where it has several nodes. */
const Addresses = z
  .union([Address, z.tuple([Address], Address).refine(isDistinct, { error: 'names the same address twice' })], {
    error: ({ input }) => (input === undefined ? 'is required' : 'must be an address, or a list of addresses'),
  })
  .meta({
    description:
      'https address of Vault; http only on a loopback address, or unix:// and the path of a socket. A list of those of one cluster: the next is asked where one is away or sealed',
    examples: ['https://vault:8200'],
  })

function isDistinct(addresses: readonly string[]): boolean {
  return new Set(addresses).size === addresses.length
}

function problemOf(text: string): string | undefined {
  if (!URL.canParse(text)) return `"${text}" is not an address; write for example https://vault.example.com:8200`
  const url = new URL(text)
  // The text may hold a password, so it is not repeated.
  if (url.username !== '' || url.password !== '') return 'must not hold a user or password; use vault.auth'
  if (url.search !== '' || url.hash !== '') return `"${text}" must not have a query or fragment`
  if (isSocket(text)) return socketProblem(text)
  if (url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname))) return undefined
  return url.protocol === 'http:'
    ? `"${text}" must use https; http is accepted on a loopback address only`
    : `"${text}" must begin with https://`
}

/** Config: certificates of CAs. */
const CaPem = z.string().refine(startsWithCertificate, { error: 'must begin with a certificate in PEM' })

function startsWithCertificate(text: string): boolean {
  try {
    return new X509Certificate(text) !== undefined
  } catch {
    return false
  }
}

const RedirectHost = z
  .string()
  .regex(/^(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i, 'must be a host, or host:port')
  // As a URL prints it.
  .transform((host) => host.toLowerCase().replace(/:443$/, ''))

const Timeouts = z.strictObject({
  connect: Timeout.prefault('3s').describe('TCP and TLS'),
  headers: Timeout.prefault('10s').describe('From the request to the head of the answer'),
  body: Timeout.prefault('10s').describe('Between two pieces of the body'),
  total: Timeout.prefault('30s').describe('The whole request'),
})

/** Config: the Vault server and how to log in to it. */
export const VaultOptions = z
  .strictObject({
    address: Addresses,
    caFile: AbsolutePath.optional().describe(
      'PEM file of the CAs that may sign for Vault, instead of the public ones; read again for each connection',
    ),
    caPem: CaPem.optional().describe('The same CAs in PEM as they are, instead of caFile'),
    clientCertFile: AbsolutePath.optional().describe(
      'PEM certificate that certferry presents; read again for each connection',
    ),
    clientKeyFile: AbsolutePath.optional().describe('PEM private key of clientCertFile'),
    serverName: z
      .string()
      .min(1)
      .optional()
      .describe("Name expected in Vault's certificate, where it is not the host of the address"),
    namespace: z
      .string()
      .regex(/^[\w.-]+(?:\/[\w.-]+)*\/?$/, 'must be a namespace path such as team/web')
      .optional()
      .describe('Vault Enterprise namespace'),
    redirectHosts: z
      .array(RedirectHost)
      .default([])
      .describe('Hosts that Vault may redirect to, by https, such as the other nodes of the cluster'),
    concurrency: z.int().min(1).max(256).default(8).describe('Requests to Vault at the same time'),
    timeouts: Timeouts.prefault({}).describe('Limits of each request'),
    auth: AuthOptions.describe('How to log in; of a list, the next method is tried when one fails for good'),
    revokeOnExit: z
      .boolean()
      .default(false)
      .describe(
        'Revokes the token of the login when certferry stops in good order, and with it all that was leased by it; never a token of kind token',
      ),
    tokenSink: TokenSink.optional().describe('Shares the token of the login with others, by a file'),
  })
  .refine(({ caFile, caPem }) => caFile === undefined || caPem === undefined, {
    path: ['caPem'],
    error: 'cannot be given together with caFile',
  })
  .check((context) => {
    const { clientCertFile, clientKeyFile, auth } = context.value
    if (kindsOf(auth).includes('cert') && clientCertFile === undefined)
      context.issues.push({
        code: 'custom',
        input: undefined,
        path: ['auth'],
        message: 'kind cert needs clientCertFile and clientKeyFile beside auth',
      })
    if ((clientCertFile === undefined) === (clientKeyFile === undefined)) return
    const missing = clientCertFile === undefined ? 'clientCertFile' : 'clientKeyFile'
    context.issues.push({
      code: 'custom',
      input: undefined,
      path: [missing],
      message: 'clientCertFile and clientKeyFile need each other',
    })
  })
  // The first one stands for the cluster, whichever answers.
  .transform(({ address, ...rest }) => {
    const addresses = typeof address === 'string' ? ([address] as const) : address
    return { ...rest, address: addresses[0], addresses }
  })
export type VaultOptions = z.output<typeof VaultOptions>
