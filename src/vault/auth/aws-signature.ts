import { createHash, createHmac } from 'node:crypto'
import type { Secret } from '../../core/secret.ts'

export interface AwsCredentials {
  readonly accessKeyId: string
  readonly secretAccessKey: Secret
  readonly sessionToken: Secret | undefined
}

/** A POST to `/` of a host. */
export interface AwsRequest {
  readonly host: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  readonly region: string
  readonly service: string
  /** ms since 1970. */
  readonly now: number
}

/**
 * All headers of the request, Authorization among them: Signature Version 4, with every header signed. Names are in lower case.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
export function signed(
  { host, headers, body, region, service, now }: AwsRequest,
  { accessKeyId, secretAccessKey, sessionToken }: AwsCredentials,
): Record<string, string> {
  const time = new Date(now).toISOString().replace(/[-:]|\.\d+/g, '')
  const date = time.slice(0, 8)
  const all = lowerCase({
    ...headers,
    host,
    'x-amz-date': time,
    ...(sessionToken && { 'x-amz-security-token': sessionToken.reveal() }),
  })
  // 1. The request in one form.
  const names = Object.keys(all).sort()
  const lines = names.map((name) => `${name}:${all[name]?.trim().replace(/ +/g, ' ')}`)
  const request = ['POST', '/', '', ...lines, '', names.join(';'), sha256(body)].join('\n')
  // 2. What is signed.
  const scope = [date, region, service, 'aws4_request']
  const text = ['AWS4-HMAC-SHA256', time, scope.join('/'), sha256(request)].join('\n')
  // 3. By a key that is good for this day, region and service.
  const key = scope.reduce<string | Buffer>((last, part) => hmac(last, part), `AWS4${secretAccessKey.reveal()}`)
  const signature = hmac(key, text).toString('hex')
  const credential = [accessKeyId, ...scope].join('/')
  const authorization = `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names.join(';')}, Signature=${signature}`
  return { ...all, authorization }
}

const lowerCase = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest()
