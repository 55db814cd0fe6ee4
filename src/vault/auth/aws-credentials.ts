import { join } from 'node:path'
import * as z from 'zod'
import { Secret } from '../../core/secret.ts'
import { SidecarError, systemCode } from '../../errors.ts'
import { readPlainFile } from '../../plain-file.ts'
import type { AwsCredentials } from './aws-signature.ts'
import { askCloud, askCloudFor } from './cloud.ts'
import { readCredential } from './credential.ts'

export interface AwsPlaces {
  readonly env: Readonly<Record<string, string | undefined>>
  /** The instance metadata service. */
  readonly metadataAddress: string
  /** STS, for the token of a service account (IRSA). */
  readonly stsAddress: string
}

export interface FoundCredentials extends AwsCredentials {
  /** Where they come from, for messages. */
  readonly place: string
}

/** Undefined where nothing says that credentials are to be had this way. Throws AUTH_SOURCE where something does, but there are none. */
type Provider = (places: AwsPlaces, signal: AbortSignal) => Promise<FoundCredentials | undefined>

/**
 * The credentials of this process, looked for where the SDKs of AWS do, in their order. What is set up and does not work is an error: the next
 * place would make us somebody else. Throws AUTH_SOURCE.
 */
export async function findCredentials(places: AwsPlaces, signal: AbortSignal): Promise<FoundCredentials> {
  for (const provide of [fromEnvironment, fromWebIdentity, fromFile, fromContainer, fromInstance]) {
    const found = await provide(places, signal)
    if (found) return found
  }
  const why = 'not in AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE, a shared file or AWS_CONTAINER_CREDENTIALS_*'
  throw new SidecarError('AUTH_SOURCE', `there are no AWS credentials: ${why}, and AWS_EC2_METADATA_DISABLED is set`)
}

const fromEnvironment: Provider = async ({ env }) => {
  const { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: key, AWS_SESSION_TOKEN: token } = env
  if (!id && !key) return undefined
  if (!id || !key)
    throw new SidecarError('AUTH_SOURCE', `${id ? 'AWS_SECRET_ACCESS_KEY' : 'AWS_ACCESS_KEY_ID'} is not set`)
  return credentials({ id, key, token, place: 'the environment' })
}

/** IAM roles for service accounts: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html */
const fromWebIdentity: Provider = async ({ env, stsAddress }, signal) => {
  const { AWS_WEB_IDENTITY_TOKEN_FILE: tokenFile, AWS_ROLE_ARN: role, AWS_ROLE_SESSION_NAME: session } = env
  if (!tokenFile) return undefined
  if (!role) throw new SidecarError('AUTH_SOURCE', 'AWS_WEB_IDENTITY_TOKEN_FILE is set, but not AWS_ROLE_ARN')
  const token = await readCredential(tokenFile)
  const body = new URLSearchParams({
    Action: 'AssumeRoleWithWebIdentity',
    Version: '2011-06-15',
    RoleArn: role,
    RoleSessionName: session || 'certferry',
    WebIdentityToken: token.reveal(),
  })
  const headers = { accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded' }
  const request = { method: 'POST', url: `${stsAddress}/`, headers, body: body.toString(), secrets: [token] } as const
  const { Credentials: given } = (await askCloudFor(AssumedRole, request, signal)).AssumeRoleWithWebIdentityResponse
    .AssumeRoleWithWebIdentityResult
  const { AccessKeyId: id, SecretAccessKey: key, SessionToken: sessionToken } = given
  return credentials({ id, key, token: sessionToken, place: `${role} by ${tokenFile}` })
}

const AssumedRole = z.object({
  AssumeRoleWithWebIdentityResponse: z.object({
    AssumeRoleWithWebIdentityResult: z.object({
      Credentials: z.object({
        AccessKeyId: z.string().min(1),
        SecretAccessKey: z.string().min(1),
        SessionToken: z.string().min(1),
      }),
    }),
  }),
})

/** Of a profile keys alone, not how to come by them: https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html */
const fromFile: Provider = async ({ env }) => {
  const { AWS_SHARED_CREDENTIALS_FILE: given, AWS_PROFILE: named, HOME: home } = env
  const file = given || (home ? join(home, '.aws', 'credentials') : undefined)
  if (file === undefined) return undefined
  const text = readIfThere(file)
  const isWanted = Boolean(given || named)
  if (text === undefined) {
    if (isWanted) throw new SidecarError('AUTH_SOURCE', `${file} is not there`)
    return undefined
  }
  const profile = named || 'default'
  const { aws_access_key_id: id, aws_secret_access_key: key, aws_session_token: token } = section(text, profile)
  if (id && key) return credentials({ id, key, token, place: `profile ${profile} of ${file}` })
  if (isWanted) throw new SidecarError('AUTH_SOURCE', `${file} has no keys of the profile ${profile}`)
  return undefined
}

function readIfThere(file: string): string | undefined {
  try {
    return readPlainFile(file).toString('utf8')
  } catch (cause) {
    const code = systemCode(cause)
    if (code === 'ENOENT') return undefined
    throw new SidecarError('AUTH_SOURCE', `cannot read ${file} (${code ?? 'unknown'})`, { cause })
  }
}

/** Keys and values of `[name]` in an INI file. */
function section(text: string, name: string): Record<string, string> {
  const lines = text.split(/\r?\n/).map((line) => line.trim())
  const start = lines.findIndex((line) => /^\[\s*(.*?)\s*\]/.exec(line)?.[1] === name)
  if (start < 0) return {}
  const rest = lines.slice(start + 1)
  const end = rest.findIndex((line) => line.startsWith('['))
  const pairs = rest.slice(0, end < 0 ? rest.length : end).map((line) => /^([^#;=\s]+)\s*=\s*(.*)$/.exec(line))
  return Object.fromEntries(pairs.flatMap((pair) => (pair ? [[pair[1], pair[2]]] : [])))
}

/** ECS and EKS Pod Identity: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html */
const fromContainer: Provider = async ({ env }, signal) => {
  const { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: relative, AWS_CONTAINER_CREDENTIALS_FULL_URI: full } = env
  const url = relative ? `http://169.254.170.2${relative}` : full
  if (!url) return undefined
  if (!mayKnowToken(url)) {
    const why = 'is neither https nor on an address that leads no further than the host'
    throw new SidecarError('AUTH_SOURCE', `AWS_CONTAINER_CREDENTIALS_FULL_URI ${why}`)
  }
  const { AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: tokenFile, AWS_CONTAINER_AUTHORIZATION_TOKEN: given } = env
  const token = tokenFile ? await readCredential(tokenFile) : given ? new Secret(given) : undefined
  const headers = token ? { authorization: token.reveal() } : {}
  const found = await askCloudFor(RoleCredentials, { url, headers, secrets: token ? [token] : [] }, signal)
  return credentials({ ...found, place: `the container credentials of ${new URL(url).origin}` })
}

/** Those that the SDKs of AWS allow. */
const CONTAINER_HOSTS: readonly string[] = [
  'localhost',
  '127.0.0.1',
  '[::1]',
  '169.254.170.2',
  '169.254.170.23',
  '[fd00:ec2::23]',
]

function mayKnowToken(url: string): boolean {
  if (!URL.canParse(url)) return false
  const { protocol, hostname } = new URL(url)
  return protocol === 'https:' || (protocol === 'http:' && CONTAINER_HOSTS.includes(hostname))
}

const RoleCredentials = z
  .object({ AccessKeyId: z.string().min(1), SecretAccessKey: z.string().min(1), Token: z.string().min(1) })
  .transform(({ AccessKeyId: id, SecretAccessKey: key, Token: token }) => ({ id, key, token }))

/** IMDSv2: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html */
const fromInstance: Provider = async ({ env, metadataAddress }, signal) => {
  if (env.AWS_EC2_METADATA_DISABLED?.toLowerCase() === 'true') return undefined
  const ttl = { 'x-aws-ec2-metadata-token-ttl-seconds': '60' }
  const session = { method: 'PUT', url: `${metadataAddress}/latest/api/token`, headers: ttl } as const
  const token = new Secret((await askCloud(session, signal)).trim())
  const more = { headers: { 'x-aws-ec2-metadata-token': token.reveal() }, secrets: [token] }
  const url = `${metadataAddress}/latest/meta-data/iam/security-credentials/`
  const role = (await askCloud({ url, ...more }, signal)).trim().split('\n')[0] ?? ''
  const found = await askCloudFor(RoleCredentials, { url: `${url}${encodeURIComponent(role)}`, ...more }, signal)
  return credentials({ ...found, place: `role ${role} of the instance` })
}

interface Parts {
  readonly id: string
  readonly key: string
  readonly token?: string | undefined
  readonly place: string
}

const credentials = ({ id, key, token, place }: Parts): FoundCredentials => ({
  accessKeyId: id,
  secretAccessKey: new Secret(key),
  sessionToken: token ? new Secret(token) : undefined,
  place,
})
