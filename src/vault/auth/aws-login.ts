import { quote, Secret } from '../../core/secret.ts'
import { type Attempt, type AuthDeps, loginFrom } from './auth.ts'
import { findCredentials } from './aws-credentials.ts'
import { signed } from './aws-signature.ts'
import { fingerprintOf } from './credential.ts'

interface AwsLogin {
  readonly mount: string
  readonly role?: string | undefined
  readonly serverId?: string | undefined
  readonly region?: string | undefined
  readonly stsAddress?: string | undefined
  readonly metadataAddress: string
}

const BODY = 'Action=GetCallerIdentity&Version=2011-06-15'

/** A request to STS that is signed but not sent: Vault sends it, and so learns who signed it. */
export async function awsLogin(options: AwsLogin, deps: AuthDeps, signal: AbortSignal): Promise<Attempt> {
  const { mount, role, serverId, region, metadataAddress } = options
  const stsAddress = options.stsAddress ?? stsOf(region)
  const { place, ...keys } = await findCredentials({ env: deps.env, metadataAddress, stsAddress }, signal)
  const { accessKeyId, secretAccessKey, sessionToken } = keys
  return {
    fingerprint: fingerprintOf(accessKeyId, secretAccessKey.reveal(), sessionToken?.reveal()),
    login: async (signal) => {
      const headers = signed(
        {
          host: new URL(stsAddress).host,
          headers: {
            'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
            'content-length': `${BODY.length}`,
            ...(serverId !== undefined && { 'x-vault-aws-iam-server-id': serverId }),
          },
          body: BODY,
          region: region ?? 'us-east-1',
          service: 'sts',
          now: deps.clock.now(),
        },
        keys,
      )
      const body = {
        role,
        iam_http_request_method: 'POST',
        iam_request_url: base64(`${stsAddress}/`),
        iam_request_body: base64(BODY),
        iam_request_headers: new Secret(base64(JSON.stringify(headers))),
      }
      const reply = await deps.ask({ operation: 'login', method: 'POST', path: `auth/${mount}/login`, body }, signal)
      return loginFrom({ ...reply, told: `${reply.told}; signed by ${quote(accessKeyId, 60)}, of ${quote(place)}` })
    },
  }
}

/** https://docs.aws.amazon.com/general/latest/gr/sts.html */
function stsOf(region: string | undefined): string {
  if (region === undefined) return 'https://sts.amazonaws.com'
  return `https://sts.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`
}

const base64 = (text: string) => Buffer.from(text).toString('base64')
