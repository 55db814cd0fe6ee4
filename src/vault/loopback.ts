import { isIPv4 } from 'node:net'

/** 127.0.0.0/8, ::1, and the name that stands for them (RFC 6761 §6.3). */
export const isLoopback = (hostname: string): boolean =>
  hostname === 'localhost' || hostname === '[::1]' || (isIPv4(hostname) && hostname.startsWith('127.'))
