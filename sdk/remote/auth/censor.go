package auth

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// redacted stands where a secret was.
const redacted = "[redacted]"

// minSecret is the length, in bytes, below which a secret is not looked for in a body: it would be found
// in words that tell nothing of it, and the body could not be understood any more.
const minSecret = 4

// censor takes out of a refusal's body what the request was authorised with: a server may repeat what it
// was sent.
func censor(resp *http.Response, authorization string) {
	secrets := secretsOf(authorization)
	if resp.StatusCode < 400 || resp.Body == nil || resp.Body == http.NoBody || len(secrets) == 0 {
		return
	}
	longest := slices.MaxFunc(secrets, func(a, b []byte) int { return len(a) - len(b) })
	resp.Body = &censored{ReadCloser: resp.Body, secrets: secrets, tail: len(longest) - 1}
	resp.ContentLength = -1
	resp.Header.Del("Content-Length")
}

// secretsOf returns what of an Authorization header must not be seen, in each form that it is likely to
// have, the longest first.
func secretsOf(authorization string) (secrets [][]byte) {
	scheme, value, _ := strings.Cut(authorization, " ")
	found := []string{value}
	if pair, err := base64.StdEncoding.DecodeString(value); err == nil && strings.EqualFold(scheme, schemeBasic) {
		_, password, _ := strings.Cut(string(pair), ":")
		found = append(found, password, url.QueryEscape(password))
	}
	for _, s := range found {
		if len(s) >= minSecret {
			secrets = append(secrets, []byte(s))
		}
	}
	slices.SortStableFunc(secrets, func(a, b []byte) int { return len(b) - len(a) })
	return secrets
}

// censored is a body without the secrets that are in it.
type censored struct {
	io.ReadCloser
	secrets [][]byte
	tail    int // how much may be the beginning of a secret

	held []byte // not yet given out
	free int    // of held, what has no secret and no beginning of one
	err  error  // what comes after held
}

// Read gives out what no secret can begin in any more.
func (c *censored) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for c.free == 0 && c.err == nil {
		c.fill()
	}
	if c.free == 0 {
		return 0, c.err
	}
	n := copy(p, c.held[:c.free])
	c.held, c.free = c.held[n:], c.free-n
	return n, nil
}

func (c *censored) fill() {
	var chunk [4 << 10]byte
	n, err := c.ReadCloser.Read(chunk[:])
	c.err = err
	c.held = append(c.held, chunk[:n]...)
	for _, secret := range c.secrets {
		c.held = bytes.ReplaceAll(c.held, secret, []byte(redacted))
	}
	c.free = max(0, len(c.held)-c.tail)
	if err != nil {
		c.free = len(c.held)
	}
}
