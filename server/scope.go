package server

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const (
	// maxScopes bounds what one token is asked for: it has to fit into a header.
	maxScopes = 64
	// maxScopeName bounds the name of a resource, in bytes.
	maxScopeName = 300
)

// scope is a right to do something with one resource: as it is asked for (distribution's "Token Scope
// Documentation") and as a token has it ("Docker Registry v2 Bearer token specification", access).
type scope struct {
	Type string `json:"type"`
	// Class is of the resource, and not of the manifests in it: Docker asks for "plugin" where it pushes
	// one. It gives no right and takes none away.
	Class   string   `json:"class,omitempty"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// scopePattern has what is before the first colon, between it and the last, and after that, because the
// name may begin with a host and port.
var scopePattern = lazily(`^([a-z0-9]+)(?:\(([a-z0-9]+)\))?:([!-~]+):([a-z,*]*)$`)

// lazily compiles an expression when it is first needed: the start of each process would pay for it else.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// parseScope reads TYPE:NAME:ACTION,ACTION or TYPE(CLASS):NAME:ACTION,ACTION.
func parseScope(text string) (scope, error) {
	match := scopePattern().FindStringSubmatch(text)
	if match == nil || len(match[3]) > maxScopeName {
		return scope{}, fmt.Errorf("scope %.40q: want TYPE:NAME:ACTION,ACTION, like repository:app/hello:pull,push", text)
	}
	s := scope{Type: match[1], Class: match[2], Name: match[3]}
	s.add(strings.Split(match[4], ","))
	return s, nil
}

// parseScopes reads the scope parameters of a request, each of which may hold several with spaces between
// them (RFC 6749, 3.3). Those of the same resource become one.
func parseScopes(parameters []string) ([]scope, error) {
	var all []scope
	for _, text := range strings.Fields(strings.Join(parameters, " ")) {
		s, err := parseScope(text)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(all, s.sameResource); i >= 0 {
			all[i].add(s.Actions)
			continue
		}
		if all = append(all, s); len(all) > maxScopes {
			return nil, fmt.Errorf("a token is for at most %d scopes: ask for several tokens", maxScopes)
		}
	}
	return all, nil
}

func (s scope) sameResource(o scope) bool {
	return s.Type == o.Type && s.Class == o.Class && s.Name == o.Name
}

// add adds actions that are not there yet.
func (s *scope) add(actions []string) {
	for _, action := range actions {
		if action != "" && !slices.Contains(s.Actions, action) {
			s.Actions = append(s.Actions, action)
		}
	}
}

// asks reports whether an action is among those of the scope.
func (s scope) asks(action string) bool { return includes(s.Actions, action) }

// String is the scope as it is asked for.
func (s scope) String() string {
	class := ""
	if s.Class != "" {
		class = "(" + s.Class + ")"
	}
	return s.Type + class + ":" + s.Name + ":" + strings.Join(s.Actions, ",")
}

// grant leaves of a scope what a user may do. No action is left of what is not here.
func (rs Rules) grant(user string, asked scope) scope {
	given := scope{Type: asked.Type, Class: asked.Class, Name: asked.Name}
	switch {
	case asked.Type == "repository":
		for _, action := range allActions() {
			if asked.asks(action) && rs.allow(user, asked.Name, action) {
				given.Actions = append(given.Actions, action)
			}
		}
	case asked.Type == "registry" && asked.Name == "catalog" && asked.asks("*") && rs.allowCatalog(user):
		given.Actions = []string{"*"}
	}
	return given
}

// allows reports whether a scope of a token lets a request through.
func (s scope) allows(access Access) bool {
	if access.Action == "catalog" {
		return s.Type == "registry" && s.Name == "catalog" && slices.Contains(s.Actions, "*")
	}
	return s.Type == "repository" && s.Name == access.Repository && slices.Contains(s.Actions, access.Action)
}
