import { createHash, createHmac } from 'node:crypto'
import type { Fault, SeenRequest } from './fault-proxy.ts'

/** A set of keys that the STS of a test knows, and whose they are. */
export interface AwsIdentity {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
  readonly arn: string
}

/** sts:GetCallerIdentity as AWS answers it: the signature over the request as it arrived decides who is asking. */
export const callerIdentity =
  (identities: readonly AwsIdentity[]) =>
  (request: SeenRequest): Fault => {
    const found = identities.find((identity) => isSignedBy(identity, request))
    if (!found) return refusal('SignatureDoesNotMatch')
    if (request.body !== 'Action=GetCallerIdentity&Version=2011-06-15') return refusal('InvalidAction')
    const account = found.arn.split(':')[4]
    const result = `<Arn>${found.arn}</Arn><UserId>AIDAEXAMPLE</UserId><Account>${account}</Account>`
    const answered = `<GetCallerIdentityResult>${result}</GetCallerIdentityResult>`
    return xml(
      200,
      `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">${answered}</GetCallerIdentityResponse>`,
    )
  }

const refusal = (code: string) => xml(403, `<ErrorResponse><Error><Code>${code}</Code></Error></ErrorResponse>`)

const xml = (status: number, body: string): Fault => ({
  kind: 'answer',
  status,
  body,
  headers: { 'content-type': 'text/xml' },
})

/** From the header that names what was signed, as the service does: what certferry meant to sign does not count. */
function isSignedBy(
  { accessKeyId, secretAccessKey, sessionToken }: AwsIdentity,
  { method, url, headers, body }: SeenRequest,
) {
  const { id, scope = '', names = '', signature } = AUTHORIZATION.exec(headers.authorization ?? '')?.groups ?? {}
  if (id !== accessKeyId || headers['x-amz-security-token'] !== sessionToken) return false
  const lines = names.split(';').map((name) => `${name}:${String(headers[name])}`)
  // Vault asks for `//`, and AWS takes paths in their normal form.
  const path = url.replace(/\/+/g, '/')
  const canonical = `${method}\n${path}\n\n${lines.join('\n')}\n\n${names}\n${sha256(body)}`
  const text = `AWS4-HMAC-SHA256\n${String(headers['x-amz-date'])}\n${scope}\n${sha256(canonical)}`
  let key = Buffer.from(`AWS4${secretAccessKey}`)
  for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest()
  return createHmac('sha256', key).update(text).digest('hex') === signature
}

const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=(?<id>[^/]+)\/(?<scope>[^,]+), SignedHeaders=(?<names>[^,]+), Signature=(?<signature>\w+)$/

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
