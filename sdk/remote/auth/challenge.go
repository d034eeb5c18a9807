package auth

import (
	"slices"
	"strings"
)

// The schemes that this package answers, in lower case.
const (
	schemeBasic  = "basic"
	schemeBearer = "bearer"
)

// maxChallenges bounds, in bytes, what is read of the WWW-Authenticate field. A longer value is passed
// over whole: half of it could say something else.
const maxChallenges = 64 << 10

// challenge is one way of authentication that a server offers (RFC 9110, 11.3).
type challenge struct {
	scheme  string            // lower case: schemes are compared without case (RFC 9110, 11.1)
	token68 string            // what follows the scheme where that is no list of parameters
	params  map[string]string // names in lower case (RFC 9110, 11.2); the first of equal names
}

// parseChallenges reads all values of the WWW-Authenticate field. Each may hold several challenges
// (RFC 9110, 11.6.1). What is malformed is passed over, never fatal: whoever sends a broken
// challenge may send a good one beside it.
func parseChallenges(values []string) []challenge {
	var out []challenge
	left := maxChallenges
	for _, v := range values {
		if len(v) > left {
			continue
		}
		left -= len(v)
		p := challengeParser{rest: v}
		out = append(out, p.challenges()...)
	}
	return out
}

// rank returns the challenges that can be answered, the strongest first, whatever their order was: a
// token that expires is better than a password. A Bearer challenge without a realm says not where to
// get a token, so it is good only for who has one, and comes last.
func rank(offered []challenge) []challenge {
	known := slices.DeleteFunc(slices.Clone(offered), func(c challenge) bool { return c.strength() == 0 })
	slices.SortStableFunc(known, func(a, b challenge) int { return b.strength() - a.strength() })
	return known
}

func (c challenge) strength() int {
	switch {
	case c.scheme == schemeBearer && c.params["realm"] != "":
		return 3
	case c.scheme == schemeBasic:
		return 2
	case c.scheme == schemeBearer:
		return 1
	}
	return 0
}

func (c *challenge) set(name, value string) {
	name = strings.ToLower(name)
	if _, ok := c.params[name]; ok {
		return
	}
	if c.params == nil {
		c.params = make(map[string]string)
	}
	c.params[name] = value
}

// challengeParser consumes one field value from the front.
type challengeParser struct{ rest string }

// challenges reads the whole value. A comma separates parameters as well as challenges, so what
// follows one is told apart by what comes after its first word: "=" makes it a parameter.
func (p *challengeParser) challenges() []challenge {
	var out []challenge
	for p.skip(" \t,"); p.rest != ""; p.skip(" \t,") {
		word := p.token()
		switch {
		case word == "":
			p.garbage()
		case p.equals():
			value := p.value()
			if len(out) > 0 {
				out[len(out)-1].set(word, value)
			}
		default:
			out = append(out, challenge{scheme: strings.ToLower(word), token68: p.token68()})
		}
	}
	return out
}

func (p *challengeParser) skip(cutset string) { p.rest = strings.TrimLeft(p.rest, cutset) }

// token consumes a token (RFC 9110, 5.6.2); "" where there is none.
func (p *challengeParser) token() string {
	n := 0
	for n < len(p.rest) && isTokenByte(p.rest[n]) {
		n++
	}
	word := p.rest[:n]
	p.rest = p.rest[n:]
	return word
}

// equals consumes "=" with blanks around it, and reports whether it was there.
func (p *challengeParser) equals() bool {
	rest, ok := strings.CutPrefix(strings.TrimLeft(p.rest, " \t"), "=")
	if ok {
		p.rest = strings.TrimLeft(rest, " \t")
	}
	return ok
}

// value consumes a parameter's value. An unquoted one should be a token, but registries are known
// to send bare URLs, so it extends to the next comma or blank.
func (p *challengeParser) value() string {
	if strings.HasPrefix(p.rest, `"`) {
		return p.quoted()
	}
	n := strings.IndexAny(p.rest, " \t,")
	if n < 0 {
		n = len(p.rest)
	}
	value := p.rest[:n]
	p.rest = p.rest[n:]
	return value
}

// quoted consumes a quoted-string and returns what it stands for (RFC 9110, 5.6.4). Without a
// closing quote it extends to the end.
func (p *challengeParser) quoted() string {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	p.rest = ""
	return b.String()
}

// token68 consumes a token68 (RFC 9110, 11.2) if one stands between the scheme and the next comma.
func (p *challengeParser) token68() string {
	rest := strings.TrimLeft(p.rest, " ")
	if len(rest) == len(p.rest) {
		return ""
	}
	n := 0
	for n < len(rest) && isToken68Byte(rest[n]) {
		n++
	}
	end := n
	for end < len(rest) && rest[end] == '=' {
		end++
	}
	after := strings.TrimLeft(rest[end:], " \t")
	if n == 0 || after != "" && after[0] != ',' {
		return ""
	}
	p.rest = after
	return rest[:end]
}

// garbage consumes something that is in no grammar. A quoted string goes as one: what is inside
// must not be taken for a challenge.
func (p *challengeParser) garbage() {
	if p.rest[0] == '"' {
		p.quoted()
		return
	}
	p.rest = p.rest[1:]
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isTokenByte(c byte) bool { return isAlnum(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 }

func isToken68Byte(c byte) bool { return isAlnum(c) || strings.IndexByte("-._~+/", c) >= 0 }
