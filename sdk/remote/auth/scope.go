package auth

import (
	"context"
	"slices"
	"strings"
)

// Scope is a right to do something with one resource of a registry, in the form that token servers
// take it: "type:name:action,action" (distribution's "Token Scope Documentation").
//
// What a registry asks for in a form that is not this one is kept whole in Type.
type Scope struct {
	// Type of the resource: "repository", "registry".
	Type string
	// Name of the resource, without a host: "app/web", "catalog".
	Name string
	// Actions on the resource: "pull", "push", "delete", or "*" for all of them.
	Actions []string
}

// String returns the scope as it is sent to a token server: "repository:app/web:pull,push".
func (s Scope) String() string {
	if s.Name == "" && len(s.Actions) == 0 {
		return s.Type
	}
	return s.Type + ":" + s.Name + ":" + strings.Join(s.Actions, ",")
}

// Repository is the right to do actions in the repository of that name: "pull", "push", "delete".
// The actions are put in order, so the same right always has the same text.
func Repository(name string, actions ...string) Scope {
	return Scope{Type: "repository", Name: name, Actions: tidy(actions)}
}

// Catalog is the right to list the repositories of a registry: "registry:catalog:*".
func Catalog() Scope {
	return Scope{Type: "registry", Name: "catalog", Actions: []string{"*"}}
}

type scopesKey struct{}

// WithScopes returns a context whose requests need exactly these scopes. It replaces the scopes of
// ctx, for a token that is given more than one request needs grows until servers refuse its size.
// A cross-repository mount needs two: push on the target, and pull on the source.
func WithScopes(ctx context.Context, scopes ...Scope) context.Context {
	return context.WithValue(ctx, scopesKey{}, merge(scopes))
}

// Scopes returns what WithScopes has put into ctx, one scope for each resource: for a [CredentialFunc] whose
// answer depends on the repository. They are the caller's to change.
func Scopes(ctx context.Context) []Scope { return merge(scopesOf(ctx)) }

// scopesOf returns the scopes that ctx carries, merged.
func scopesOf(ctx context.Context) []Scope {
	scopes, _ := ctx.Value(scopesKey{}).([]Scope)
	return scopes
}

// maxScopes bounds the scopes that are taken from one challenge.
const maxScopes = 64

// parseScopes reads the scope parameter of a challenge: scopes with spaces between them (RFC 6750,
// 3). A name may have colons, for it may begin with a host and port. Those beyond the bound are left
// out.
func parseScopes(text string) []Scope {
	var scopes []Scope
	for field := range strings.FieldsSeq(text) {
		if len(scopes) == maxScopes {
			break
		}
		scopes = append(scopes, parseScope(field))
	}
	return merge(scopes)
}

func parseScope(text string) Scope {
	kind, rest, _ := strings.Cut(text, ":")
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 {
		return Scope{Type: text}
	}
	return Scope{Type: kind, Name: rest[:colon], Actions: tidy(strings.Split(rest[colon+1:], ","))}
}

// merge returns one scope for each resource, with all actions asked for it. A resource with no
// action is left out. What pushes comes first: some token servers look at the first scope alone.
func merge(scopes []Scope) []Scope {
	var out []Scope
	for _, s := range scopes {
		i := slices.IndexFunc(out, s.sameResource)
		if i < 0 {
			i = len(out)
			out = append(out, Scope{Type: s.Type, Name: s.Name})
		}
		out[i].Actions = tidy(append(out[i].Actions, s.Actions...))
	}
	out = slices.DeleteFunc(out, func(s Scope) bool { return s.Name != "" && len(s.Actions) == 0 })
	slices.SortStableFunc(out, func(a, b Scope) int { return b.pushRank() - a.pushRank() })
	return out
}

// widen adds to scopes what more asks for the same resources, and nothing else: a registry that
// asks for other resources than the request is about does not get them into the token.
func widen(scopes, more []Scope) []Scope {
	all := slices.Clone(scopes)
	for _, s := range more {
		if slices.ContainsFunc(scopes, s.sameResource) {
			all = append(all, s)
		}
	}
	return merge(all)
}

// covers reports whether a token for have serves a request that needs need.
func covers(have, need []Scope) bool {
	for _, n := range need {
		if !slices.ContainsFunc(have, func(h Scope) bool { return h.includes(n) }) {
			return false
		}
	}
	return true
}

func (s Scope) includes(n Scope) bool {
	if !s.sameResource(n) {
		return false
	}
	if slices.Contains(s.Actions, "*") {
		return true
	}
	for _, action := range n.Actions {
		if !slices.Contains(s.Actions, action) {
			return false
		}
	}
	return true
}

func (s Scope) sameResource(o Scope) bool { return s.Type == o.Type && s.Name == o.Name }

// onlyPull reports whether scopes ask for nothing but to read.
func onlyPull(scopes []Scope) bool {
	return !slices.ContainsFunc(scopes, func(s Scope) bool {
		return slices.ContainsFunc(s.Actions, func(action string) bool { return action != "pull" })
	})
}

func (s Scope) pushRank() int {
	if slices.Contains(s.Actions, "push") {
		return 1
	}
	return 0
}

// tidy returns the actions sorted, each once, without empty ones.
func tidy(actions []string) []string {
	out := slices.DeleteFunc(slices.Clone(actions), func(a string) bool { return a == "" })
	slices.Sort(out)
	return slices.Compact(out)
}

// scopeText joins scopes as the scope parameter of RFC 6749, 3.3 has them.
func scopeText(scopes []Scope) string {
	texts := make([]string, len(scopes))
	for i, s := range scopes {
		texts[i] = s.String()
	}
	return strings.Join(texts, " ")
}
